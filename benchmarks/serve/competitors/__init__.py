"""Other servers of the same checkpoint. They run in their own environment, so no module
here imports this project.
"""
