"""What follows a rotation in the background: data keys under the new epoch, indexes under the new key."""
