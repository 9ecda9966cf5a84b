"""The official DDIM command line (ermongroup/ddim, main.py), translated into `diptych` commands."""
