"""Accounts as other services and admins see and handle them."""
