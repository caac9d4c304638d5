"""The payment service: charges, refunds, the ledger, and the provider behind a port."""
