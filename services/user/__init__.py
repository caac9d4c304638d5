"""Who shops here: accounts, logins, the keys and tokens that every service trusts, and address books."""
