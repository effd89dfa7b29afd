"""Other servers of the same checkpoint. They run in an environment of their own, so that no module
here imports anything of this project.
"""
