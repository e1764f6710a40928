-- name: keep!
insert into api_key (id, digest, scopes, label, created_at, expires_at)
values (:id, :digest, :scopes::text[], :label, :now::timestamptz, coalesce(:expires_at::timestamptz, 'infinity'));

-- name: find^
-- A key that holds now.
select id, digest, scopes from api_key where id = :id and revoked_at is null and expires_at > :now;

-- name: revoke$
update api_key set revoked_at = :now where id = :id and revoked_at is null returning true;

-- name: every
select id, label, scopes, created_at, nullif(expires_at, 'infinity') expires_at, revoked_at from api_key order by created_at desc, id;
