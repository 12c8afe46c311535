"""The external systems as one real server, with a ledger to check against and faults to order."""
