"""Payouts: what the wallet is to be told again, from the outbox to what became of each.

The outbox (`wallet.transaction`) keeps its own rules, in its triggers: whoever enters a payout can
neither overwrite one nor fail because it is there already.
"""
