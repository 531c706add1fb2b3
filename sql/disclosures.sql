-- name: add_disclosure
-- Who received which fields of whom.
insert into pii_disclosures (id, user_id, recipient, recipient_kind, actor_id, fields, purpose, action, attempt_id, at)
values (
    :disclosure.id, :disclosure.user_id, :disclosure.recipient, :disclosure.recipient_kind, :disclosure.actor_id,
    :disclosure.fields, :disclosure.purpose, :disclosure.action, :disclosure.attempt_id, :disclosure.at
);
