"""Notification preferences."""
