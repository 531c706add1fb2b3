set local lock_timeout = '5s';
set local statement_timeout = '60s';

create type kyc_case_status as enum (
    'initiated', 'documents_submitted', 'in_review', 'approved', 'rejected', 'expired'
);
create type kyc_attempt_state as enum ('starting', 'started', 'failed', 'superseded');
create type kyc_check as enum ('pan', 'selfie', 'aadhaar', 'address', 'bank');
create type kyc_check_status as enum ('pending', 'review', 'passed', 'failed');
create type kyc_rejection_code as enum (
    'document_unreadable', 'document_expired', 'face_mismatch', 'liveness_failed', 'pan_invalid', 'aadhaar_invalid',
    'address_mismatch', 'bank_invalid', 'identity_mismatch', 'fraud', 'manual', 'account_closed', 'vendor_declined'
);
create type kyc_review_reason as enum ('vendor_review', 'identity_mismatch', 'identity_conflict');
create type kyc_decision as enum ('approve', 'reject');
create type kyc_artifact_type as enum (
    'selfie', 'pan_card', 'aadhaar_front', 'aadhaar_back', 'address_proof', 'liveness_video'
);
create type kyc_artifact_state as enum ('pending', 'stored', 'given_up');
create type webhook_state as enum ('waiting', 'applied', 'unreadable', 'unclaimed');
create type claim_kind as enum ('pan');

create table kyc_cases (
    id uuid primary key,
    user_id uuid not null references users (id),
    vendor text not null check (vendor ~ '^[a-z][a-z0-9_]{0,31}$'),
    vendor_case_id text,
    status kyc_case_status not null default 'initiated',
    rejection_code kyc_rejection_code,
    rejection_reason text,
    target_tier kyc_tier not null,
    redirect_url text,
    bank_account_enc sealed,
    initiated_at timestamptz not null,
    completed_at timestamptz,
    expires_at timestamptz not null,
    version integer not null default 1,
    review_reason kyc_review_reason,
    decision kyc_decision,
    decided_at timestamptz,
    decided_by uuid,
    first_approval_by uuid,
    note_enc sealed,
    leased_until timestamptz,
    next_look_at timestamptz not null,
    looks integer not null default 0
);
comment on column kyc_cases.version is 'Raised by every change that a reviewer could have looked at: case_version.';
comment on column kyc_cases.next_look_at is 'When the sweeper takes the case up: to start it again, to ask the vendor, to expire it.';
create unique index kyc_cases_open on kyc_cases (user_id) where status in ('initiated', 'documents_submitted', 'in_review');
create index kyc_cases_of_user on kyc_cases (user_id, initiated_at);
create index kyc_cases_due on kyc_cases (next_look_at) where status in ('initiated', 'documents_submitted', 'in_review');
create index kyc_cases_reviews on kyc_cases (initiated_at, id) where status = 'in_review';

create table kyc_attempts (
    id uuid primary key,
    case_id uuid not null references kyc_cases (id),
    vendor text not null check (vendor ~ '^[a-z][a-z0-9_]{0,31}$'),
    vendor_case_id text,
    state kyc_attempt_state not null default 'starting',
    token_hash bytea not null unique check (octet_length(token_hash) = 32),
    token_enc sealed not null,
    hosted_enc sealed,
    expires_at timestamptz,
    calls integer not null default 0,
    called_at timestamptz,
    created_at timestamptz not null,
    started_at timestamptz,
    unique (vendor, vendor_case_id)
);
comment on column kyc_attempts.hosted_enc is 'JSON of what lets somebody go on with this attempt: the hosted page and the SDK token.';
create index kyc_attempts_of_case on kyc_attempts (case_id, created_at);

create table kyc_evidence (
    id uuid primary key,
    case_id uuid not null references kyc_cases (id),
    attempt_id uuid not null references kyc_attempts (id),
    source text not null check (source in ('start', 'webhook', 'fetch')),
    source_event text not null,
    standing smallint not null,
    vendor_status text not null,
    rejection_code kyc_rejection_code,
    payload_enc sealed not null,
    occurred_at timestamptz,
    received_at timestamptz not null,
    unique (attempt_id, source_event)
);
create index kyc_evidence_of_case on kyc_evidence (case_id, received_at);

create table kyc_checks (
    id uuid primary key,
    case_id uuid not null references kyc_cases (id),
    user_id uuid not null references users (id),
    kind kyc_check not null,
    status kyc_check_status not null default 'pending',
    vendor text not null,
    completed_at timestamptz,
    valid_until timestamptz,
    unique (case_id, kind)
);
create index kyc_checks_of_user on kyc_checks (user_id, kind);
create index kyc_checks_ending on kyc_checks (valid_until) where status = 'passed';

create table kyc_artifacts (
    id uuid primary key,
    kyc_case_id uuid not null references kyc_cases (id),
    attempt_id uuid not null references kyc_attempts (id),
    artifact_type kyc_artifact_type not null,
    state kyc_artifact_state not null default 'pending',
    storage_ref_enc sealed not null,
    source_enc sealed,
    hash text check (hash ~ '^[0-9a-f]{64}$'),
    size bigint,
    media_type text,
    tries integer not null default 0,
    next_try_at timestamptz,
    given_up_for text,
    uploaded_at timestamptz,
    created_at timestamptz not null,
    unique (attempt_id, artifact_type)
);
comment on table kyc_artifacts is 'The row is there before the upload, and says where it goes: an upload that was cut off is done again.';
create index kyc_artifacts_due on kyc_artifacts (next_try_at) where state = 'pending';
create index kyc_artifacts_of_case on kyc_artifacts (kyc_case_id);

create table webhook_inbox_keys (
    day date primary key,
    owner uuid not null unique,
    epoch integer not null references pii_keyring (epoch),
    wrapped bytea not null
);
comment on table webhook_inbox_keys is 'One data key a day: whose message it is is not known when it is sealed. Deleted after a week.';

create table webhook_inbox (
    id uuid primary key,
    vendor text not null,
    dedupe_key text not null,
    attempt_id uuid,
    authentic_body boolean not null,
    body_enc sealed,
    headers_enc sealed,
    day date not null,
    state webhook_state not null default 'waiting',
    tries integer not null default 0,
    next_try_at timestamptz,
    request_id text,
    traceparent text,
    received_at timestamptz not null,
    applied_at timestamptz,
    unique (vendor, dedupe_key)
);
create index webhook_inbox_due on webhook_inbox (next_try_at) where state = 'waiting';
create index webhook_inbox_received on webhook_inbox using brin (received_at);

create table identity_claims (
    kind claim_kind not null,
    index_version smallint not null,
    digest bytea not null,
    user_id uuid not null references users (id),
    claimed_at timestamptz not null,
    primary key (kind, index_version, digest)
);
create index identity_claims_of_user on identity_claims (user_id);

create table pii_disclosures (
    id uuid primary key,
    user_id uuid not null references users (id),
    recipient text not null,
    recipient_kind actor_kind not null,
    actor_id uuid,
    fields text[] not null,
    purpose text not null,
    action text not null,
    attempt_id uuid,
    at timestamptz not null
);
comment on table pii_disclosures is 'Who received which fields of whom, for what: a row for each vendor call that carries some, and for each reveal.';
create index pii_disclosures_of_user on pii_disclosures (user_id, at, id);

grant select, insert, update on kyc_cases, kyc_attempts, kyc_checks, kyc_artifacts to usercore_app;
grant select, insert on kyc_evidence, pii_disclosures to usercore_app;
grant select, insert, delete on identity_claims, webhook_inbox_keys to usercore_app;
grant select, insert, update, delete on webhook_inbox to usercore_app;
