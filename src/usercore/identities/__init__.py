"""Who is who: documents compared with the profile, and one verified PAN for one account."""
