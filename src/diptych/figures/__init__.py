"""Pictures and charts: grids, sheets, animations, and the look of every chart."""
