"""`diptych doctor`: checks of this machine and the commands that fix what fails."""
