-- name: keep!
-- Keeps each proof once, in the order of their digests, so that two imports at once never wait for each other in a circle.
insert into proof (digest, source, notice)
select u.digest, u.source, u.notice
from unnest(:digest::text[], :source::text[], :notice::text[]) u(digest, source, notice)
order by u.digest
on conflict do nothing;
