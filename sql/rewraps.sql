-- name: set_unused
-- A whole pass over what these epochs wrapped or indexed found nothing more: since now, unless it was known before. Not
-- just after a rotation, when a process that did not notice it yet may write under them behind the pass.
update pii_keyring set unused_since = now()
where epoch = any(:epochs::integer[]) and state = 'retiring' and unused_since is null
    and state_since < now() - interval '30 seconds';

-- name: has_unfinished
-- Whether something may be left under an older epoch of this purpose.
select exists (
    select from pii_keyring k
    join pii_keyring a on a.purpose = k.purpose and a.state = 'active' and a.version > k.version
    where k.purpose = :purpose and k.state = 'retiring' and k.unused_since is null
);

-- name: get_slice_end
-- The last user of the next slice of data keys; none when there are no more.
select s.user_id
from (select k.user_id from user_keys k where k.user_id > :after order by k.user_id limit :most) as s
order by s.user_id desc limit 1;

-- name: list_outdated
-- The data keys of a slice of users that another epoch wraps than the one that is written under, quarantined ones aside.
select k.user_id, k.retention_class, k.version, k.epoch, k.wrapped
from user_keys k
where k.user_id > :after and k.user_id <= :until and k.epoch <> :epoch
    and not exists (
        select from user_keys_quarantine q
        where q.user_id = k.user_id and q.retention_class = k.retention_class and q.version = k.version
    )
order by k.user_id;

-- name: set_wraps
-- Each data key under its new wrap, unless it was changed or destroyed meanwhile.
with moved as (
    update user_keys k set epoch = n.epoch, wrapped = n.wrapped
    from unnest(
        :keys.user_id::uuid[], :keys.retention_class::retention_class[], :keys.version::smallint[],
        :keys.epoch::integer[], :keys.wrapped::bytea[], :was::bytea[]
    ) as n(user_id, retention_class, version, epoch, wrapped, was)
    where k.user_id = n.user_id and k.retention_class = n.retention_class and k.version = n.version
        and k.wrapped = n.was
    returning 1
)
select count(*) from moved;

-- name: add_quarantined
-- A data key that does not open: told once.
insert into user_keys_quarantine (user_id, retention_class, version, epoch, reason)
values (:user_id, :retention_class, :version, :epoch, :reason)
on conflict do nothing
returning true;

-- name: list_outdated_inbox_keys
-- The keys of the webhook inbox, one a day for a week, that another epoch wraps.
select w.day, w.owner, w.epoch, w.wrapped from webhook_inbox_keys w where w.epoch <> :epoch;

-- name: set_inbox_wrap
-- Its new wrap, unless it was destroyed meanwhile.
update webhook_inbox_keys set epoch = :epoch, wrapped = :wrapped where day = :day and wrapped = :was;

-- name: get_profile_slice_end
-- The last user of the next slice of profiles; none when there are no more.
select s.user_id
from (select p.user_id from user_profiles p where p.user_id > :after order by p.user_id limit :most) as s
order by s.user_id desc limit 1;

-- name: list_unindexed
-- The profiles of a slice that have an index of another version than the one that is written now, with their keys.
select
    p.user_id, p.pan_number_enc, p.phone_enc, p.pan_number_index, p.phone_index,
    k.classes as key_classes, k.versions as key_versions, k.epochs as key_epochs, k.wraps as key_wraps
from user_profiles p
cross join lateral (
    select
        array_agg(u.retention_class) as classes, array_agg(u.version) as versions,
        array_agg(u.epoch) as epochs, array_agg(u.wrapped) as wraps
    from user_keys u where u.user_id = p.user_id
) as k
where p.user_id > :after and p.user_id <= :until
    and (substr(p.pan_number_index, 1, 2) <> :prefix or substr(p.phone_index, 1, 2) <> :prefix)
order by p.user_id;

-- name: set_indexes
-- Each index of a profile, unless what it indexes was changed meanwhile: then whoever changed it wrote its index.
update user_profiles p
set pan_number_index = case
        when p.pan_number_index = :was_pan_number then :pan_number_index else p.pan_number_index
    end,
    phone_index = case when p.phone_index = :was_phone then :phone_index else p.phone_index end
where p.user_id = :user_id
    and (p.pan_number_index = :was_pan_number or p.phone_index = :was_phone)
returning true;

-- name: add_claim
-- A claim that a user has under older versions of the index, under the one that is written now.
insert into identity_claims (kind, index_version, digest, user_id, claimed_at)
select 'pan', :index_version, :digest, c.user_id, min(c.claimed_at)
from unnest(:older_versions::smallint[], :older_digests::bytea[]) as o(index_version, digest)
join identity_claims c on c.kind = 'pan' and c.index_version = o.index_version and c.digest = o.digest
where c.user_id = :user_id
group by c.user_id
on conflict do nothing;
