"""What follows an erasure in the stores beside PostgreSQL, and the certificate when all of it is done."""
