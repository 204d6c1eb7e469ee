"""`python -m tests.load run`: load on a service that runs already, which is left as it was.

`command` is the command line, `options` and `thresholds` read what it is given, `accounts` makes and deletes tasks,
`session` runs the load, `outcome` and `report` show it. Must import neither the service nor its peers.
"""
