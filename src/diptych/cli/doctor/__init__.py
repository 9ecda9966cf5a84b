"""`diptych doctor`: checks of this machine, and commands that fix failed checks."""
