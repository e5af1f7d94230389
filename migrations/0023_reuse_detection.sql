-- Whether a token that was superseded, and whose grace is over, revokes its family when it is used to rotate.
ALTER TABLE policies ADD COLUMN reuse_detection boolean NOT NULL DEFAULT false;
