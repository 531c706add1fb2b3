"""Tests of the edge: settings, telemetry, tokens, the ASGI layer, cursors and limits."""
