-- How each account is heard: how long it is silent, and who only pretended to be it. One row an account, or one a day of it; nothing of
-- this is written while a delivery is kept.

-- When an account was heard, as of the worker's last look.
create table silence (
  account text primary key,
  since timestamptz not null,              -- when it was first seen to have spoken
  last_at timestamptz not null,
  looked_at timestamptz not null,
  alarmed boolean not null default false); -- of this very silence somebody was told

-- The longest silence that ended on a day, of the 90 days before it was last heard: what is usual is read from these.
create table gap (
  account text not null,
  day date not null,
  longest interval not null check (longest >= interval '0'),
  primary key (account, day));

-- Deliveries that proved nothing. Added up in each process and written every few seconds, so that a flood of them is one row.
create table forgery (
  account text primary key,
  deliveries bigint not null,
  last_at timestamptz not null);
