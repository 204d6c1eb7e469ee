"""What tests of several folders need, each thing once; fixtures are in the conftest.py of the folder that uses them."""
