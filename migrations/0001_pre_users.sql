set local lock_timeout = '5s';
set local statement_timeout = '60s';

do $$
begin
    if not exists (select from pg_roles where rolname = 'usercore_app') then
        raise exception 'The role usercore_app is missing: create it (login, owning nothing) before migrating.';
    end if;
end
$$;

create extension if not exists citext;

-- A sealed value: format byte 1, header of 16 bytes, tag of 16, at least one bucket between. A plaintext does not fit.
create domain sealed as bytea check (octet_length(value) >= 33 and get_byte(value, 0) = 1);

create type user_status as enum ('pending', 'active', 'suspended', 'frozen', 'closed');
create type user_kyc_status as enum ('not_started', 'pending', 'in_review', 'approved', 'rejected', 'expired');
create type kyc_tier as enum ('tier_0', 'tier_1', 'tier_2', 'tier_3');
create type retention_class as enum ('identity', 'contact', 'kyc_evidence');
create type keyring_purpose as enum ('user_keys', 'blind_index', 'audit_ip', 'tokens');
create type keyring_state as enum ('active', 'retiring', 'retired');

create table users (
    id uuid primary key,
    auth_id uuid not null unique check (auth_id = id),
    status user_status not null default 'pending',
    kyc_status user_kyc_status not null default 'not_started',
    kyc_tier kyc_tier not null default 'tier_0',
    version integer not null default 1,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    verified_at timestamptz,
    activated_at timestamptz,
    closed_at timestamptz,
    erased_at timestamptz
);
comment on column users.status is 'Derived from closed_at, open holds and activated_at by the verb that changes one of them.';
comment on column users.version is 'Raised by whatever shows in the body of GET /v1/me; its ETag.';

create table user_profiles (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null unique references users (id),
    first_name_enc sealed,
    last_name_enc sealed,
    date_of_birth_enc sealed,
    pan_number_enc sealed,
    aadhaar_last4_enc sealed,
    address_enc sealed,
    phone_enc sealed,
    email citext,
    avatar_url text,
    pan_number_index bytea,
    phone_index bytea,
    updated_at timestamptz not null
);
create index user_profiles_email on user_profiles (email) where email is not null;
create index user_profiles_pan_number_index on user_profiles (pan_number_index) where pan_number_index is not null;
create index user_profiles_phone_index on user_profiles (phone_index) where phone_index is not null;

create table pii_keyring (
    epoch integer generated always as identity primary key,
    purpose keyring_purpose not null,
    version integer not null,
    kms_uri text not null,
    kms_version text not null,
    wrapped bytea not null,
    commitment bytea not null,
    state keyring_state not null default 'active',
    created_at timestamptz not null default now(),
    unique (purpose, version)
);
create unique index pii_keyring_active on pii_keyring (purpose) where state = 'active';

create table user_keys (
    user_id uuid not null references users (id),
    retention_class retention_class not null,
    version smallint not null,
    epoch integer not null references pii_keyring (epoch),
    wrapped bytea not null,
    created_at timestamptz not null default now(),
    primary key (user_id, retention_class, version)
);

grant select, insert, update on users, user_profiles to usercore_app;
grant select, insert on pii_keyring, user_keys to usercore_app;
