"""KYC as operators look after it: messages that were not applied, cases that are open."""
