-- A JSON list of uids. In the channel's own row, so that a statement that hands the group over, or checks who owns it, changes both
-- at once; gateways of before this migration go on working beside it.
ALTER TABLE channels ADD COLUMN managers TEXT NOT NULL DEFAULT '[]';
