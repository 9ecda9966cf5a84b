"""The float64 reference implementation that both backends are judged against."""
