-- The sender's own systems hear our changes in the order in which they were recorded. A row is theirs to read when no earlier transaction
-- can still commit; `position` is the transaction that recorded it.
create index consent_position on consent (position);

create table webhook (
  name text primary key,
  position xid8 not null,                  -- everything up to this row of the ledger (address: its key) was acknowledged
  bucket smallint not null default 0,
  address uuid not null default '00000000-0000-0000-0000-000000000000',
  evidence text not null default '',
  attempts int not null default 0,
  due_at timestamptz not null default '-infinity',
  failing_since timestamptz,
  delivered_at timestamptz,
  owner uuid,
  owned_until timestamptz not null default '-infinity');
