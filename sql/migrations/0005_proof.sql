-- What an imported consent says of itself: where it was given, and the words that were shown. The ledger names it by its digest, which
-- stands in the evidence after 'import:'. One row for many people, and nothing about any of them, so that erasure never touches it.
create table proof (
  digest text primary key,
  source text not null,
  notice text not null);
