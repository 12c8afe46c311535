"""Where the sandbox's systems answer, and the keys they accept: what its users need to know."""

from __future__ import annotations

TICKTOCK_PATH = "/cs2/v1"
TICKTOCK_KEY = "sandbox-ticktock-key"
TICKTOCK_KEY_WITHOUT_SCOPE = "sandbox-ticktock-key-without-scope"
WALLET_PATH = "/wallet"
WALLET_KEY = "sandbox-wallet-key"
WALLET_SECRET = "sandbox-wallet-secret"
ODDS88_PATH = "/odds88"
ODDS88_CLIENT_ID = "sandbox-odds88-client"
ODDS88_PASSWORD = "sandbox-odds88-password"
ALERTS_PATH = "/alerts"
CONTROL_PATH = "/sandbox"
