"""One module per contract: its routes and schemas. A dialect's words stay in its module."""
