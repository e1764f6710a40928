-- The mails that we owe: links to one's choices, and questions whether mail is wanted. What is asked for on a page is written here whoever
-- is named and whether or not we know them; that is looked at when the mail is sent, so that no answer's time or length tells.
create table mail (
  bucket smallint not null check (bucket between 0 and 1023),
  key uuid not null,
  id uuid not null,
  kind text not null check (kind in ('manage', 'confirm')),
  scope int not null,            -- the brand whose choices they are, or the topic that is asked about
  plaintext text,                -- confirm: where it goes, until that is answered; a manage link goes to the text that we know, and nowhere else
  language text,
  asked_at timestamptz not null,
  due_at timestamptz not null,   -- infinity: it was sent, and the answer is awaited
  attempts int not null default 0,
  primary key (bucket, key, id));
create index mail_due on mail (due_at);

-- When mails to an address were asked for within the last hour: a bound, whoever asks. Written at each asking, granted or not.
create table asking (
  bucket smallint not null check (bucket between 0 and 1023),
  key uuid not null,
  times timestamptz[] not null,
  granted boolean not null,
  asked_at timestamptz not null,
  primary key (bucket, key));
create index asking_asked on asking (asked_at);

-- Links to one's choices that were closed before their hour was over.
create table closed_pass (
  bucket smallint not null check (bucket between 0 and 1023),
  key uuid not null,
  id uuid not null,
  closed_at timestamptz not null,
  primary key (bucket, key, id));
create index closed_pass_at on closed_pass (closed_at);
