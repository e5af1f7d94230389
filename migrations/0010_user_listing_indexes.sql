-- Listings of one user over all organizations, as a root caller asks for, in both orders.
CREATE INDEX tokens_any_user_create_time_idx ON tokens (user_id, create_time DESC, id DESC);
CREATE INDEX tokens_any_user_expire_time_idx ON tokens (user_id, coalesce(expire_time, 'infinity'), id);
