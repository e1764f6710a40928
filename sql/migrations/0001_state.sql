-- The state: a ledger that is the only truth, and one summary per address folded from it.
-- Core PostgreSQL 15 to 18 alone: no extension, no sequence, no trigger. `bucket` leads every key of a table about an address.

create type channel as enum ('email', 'sms');
create type pause as (scope int, until timestamptz);

-- Every number the catalogue ever gave out. A number never means something else.
create table scope (
  scope int primary key check (scope between 0 and 65535),
  path int[] not null check (path[cardinality(path)] = scope),
  name text not null unique,
  stream text check (stream in ('marketing', 'transactional')),
  wants_email smallint not null default 0 check (wants_email between 0 and 2),  -- 0 opt-out, 1 opt-in, 2 double opt-in
  wants_sms smallint not null default 0 check (wants_sms between 0 and 2),
  retired boolean not null default false);

-- Every key id that ever minted a link: a service without that key refuses to start.
create table signing_key (
  id smallint primary key check (id between 0 and 255),
  first_seen_at timestamptz not null);

-- What the key ring was when it was first seen, by key id, -1 for the digest key: under another ring nobody's opt-out is recognised.
create table fingerprint (
  id smallint primary key check (id between -1 and 255),
  value bytea not null);

create table account (
  account smallint primary key,
  name text not null unique,
  channel channel not null);

-- What each account is told about. `path` is the part of the tree that counts for it: without root and brand unless bounces are shared.
create table mapping (
  account smallint not null references account,
  scope int not null references scope,
  path int[] not null,
  called text,               -- the provider and its own id of it: under another one it has been told nothing
  filled boolean not null default false,  -- everyone who is held has been owed a push since it was mapped
  primary key (account, scope));

-- One reachable place and the summary of its ledger; null where there is nothing to say. The arrays stand before the text,
-- because an export that walks past a long column to reach them pays for it on every row.
create table address (
  bucket smallint not null check (bucket between 0 and 1023),
  key uuid not null,
  channel channel,           -- null: known by its key alone
  stops int[],               -- scopes on hold for ever, by any cause
  goes int[],                -- topics whose go is later than every choice stop on or above them
  grants int[],              -- topics with a confirmed grant or a go
  claims int[],              -- topics whose only grant was imported
  goes_below int[],          -- as goes, of stream and topic alone, where a hold above (a bounce) closes the choice: what providers are told
  pauses pause[],            -- timed holds; whoever reads tests until > now
  plaintext text,            -- null: never told, or erased
  locale text,
  region text,
  party text,                -- the application's own id, which ties a person's e-mail and phone together
  primary key (bucket, key)) with (fillfactor = 85);
create index address_party on address (party) where party is not null;

-- The ledger. Append-only, and without any personal field, so that erasure never touches it.
create table consent (
  bucket smallint not null,
  key uuid not null,
  evidence text not null,    -- 'door:id of the fact at that door', or 'undo:' and the evidence that is taken back
  scope int not null,
  cause text not null check (cause in ('choice', 'complaint', 'minor', 'staff', 'bounce', 'invalid', 'pause', 'soft')),
  effect text not null check (effect in ('stop', 'go', 'grant', 'withdraw', 'note')),
  door text not null check (door in ('link', 'page', 'manage', 'mail', 'sms', 'provider', 'import', 'staff', 'reconcile', 'system')),
  teller text,               -- the account's or the operator's name
  happened_at timestamptz not null,
  received_at timestamptz not null,
  at timestamptz not null,   -- the time it counts from, frozen when first stored
  until timestamptz not null default 'infinity',
  position xid8 not null default pg_current_xact_id(),
  primary key (bucket, key, evidence),
  check ((effect = 'withdraw') = (evidence like 'undo:%')),
  check ((effect = 'stop' and cause in ('pause', 'soft')) = (until < 'infinity')));

-- What an account must still be told about one (address, scope): state, not history. Bounded by addresses, never by events.
create table push (
  bucket smallint not null,
  account smallint not null,
  key uuid not null,
  scope int not null,
  want bigint not null default 1,          -- moves with every change of mind; a settlement counts only for the want it was made for
  stop boolean not null,                   -- the direction when it was queued: stops go first; what is sent is read anew
  since timestamptz not null,              -- when the account was first owed this
  due_at timestamptz not null,             -- infinity: known by key only, cannot be told yet
  attempts int not null default 0,
  unsure_until timestamptz not null default '-infinity',  -- an earlier request of unknown outcome may still land until then
  lease uuid,
  lease_until timestamptz not null default '-infinity',
  refused text,                            -- the code with which the provider refuses this very one
  primary key (bucket, account, key, scope)) with (fillfactor = 70);
create index push_due on push (account, bucket, stop desc, due_at);

-- What an account was told, and when: the proof behind the clock.
create table told (
  bucket smallint not null,
  account smallint not null,
  key uuid not null,
  scope int not null,
  stop boolean not null,
  asked_at timestamptz not null,
  sent_at timestamptz not null,
  confirmed_at timestamptz not null,
  primary key (bucket, key, account, scope, sent_at));

-- One worker owns an account at a time, and its limiter with it; a provider that asks for patience closes the gate for all of it.
create table gate (
  account smallint primary key,
  not_before timestamptz not null default '-infinity',
  barred boolean not null default false,   -- the credential was refused
  owner uuid,
  owned_until timestamptz not null default '-infinity');

-- What a verified delivery said that we could not read or place. Kept 30 days.
create table event (
  account text not null,
  id text not null,                        -- SHA-256 of the bytes: the same delivery twice is one row
  received_at timestamptz not null,
  reason text not null,
  raw bytea not null,
  primary key (account, id));

-- Soft bounces, which are counted and no Changes. Kept for two windows of the policy.
create table soft_bounce (
  bucket smallint not null,
  key uuid not null,
  id text not null,
  at timestamptz not null,
  primary key (bucket, key, id));

-- Proofs that count once, of providers whose signature does not cover the body: the same with another body is a forgery. Kept 30 days.
create table once (
  account text not null,
  nonce text not null,
  digest bytea not null,
  received_at timestamptz not null,
  primary key (account, nonce));

-- What each account was heard to say, by kind, so that silence and forgery show.
create table heard (
  account text not null,
  kind text not null,
  events bigint not null,
  last_at timestamptz not null,
  primary key (account, kind));

create table api_key (
  id text primary key,
  digest bytea not null,                   -- SHA-256 of the secret, which is shown once
  scopes text[] not null,
  label text not null,
  created_at timestamptz not null,
  expires_at timestamptz not null default 'infinity',
  revoked_at timestamptz);
