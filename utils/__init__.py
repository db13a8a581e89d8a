"""What the scripts are built from: a folder for each stage, and the ground that all of them stand on, in modules here.

`arguments.py` is the command line and `console.py` what is printed; `records.py` defines the records in the files
between the stages, and `files.py` writes files whole or not at all; `journal.py` keeps the results of long work as they
come; `models.py` finds and loads models by name, `device.py` chooses where they run; `languages.py` knows languages by
name, and which one texts are in. Imports lead down only: documents and splade stand on the ground, search on these,
training_data and evaluation on search, training on all.
"""
