set local lock_timeout = '5s';
set local statement_timeout = '60s';

drop table pii_disclosures, identity_claims, webhook_inbox, webhook_inbox_keys, kyc_artifacts, kyc_checks, kyc_evidence,
    kyc_attempts, kyc_cases;
drop type claim_kind, webhook_state, kyc_artifact_state, kyc_artifact_type, kyc_decision, kyc_review_reason,
    kyc_rejection_code, kyc_check_status, kyc_check, kyc_attempt_state, kyc_case_status;
