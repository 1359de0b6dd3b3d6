-- How often the connect tokens of a user's device were revoked. No row: never.
CREATE TABLE im_tokens (
    uid         TEXT   NOT NULL,
    device      BIGINT NOT NULL, -- WuKongIM's device flag: 0 app, 1 web, 2 pc
    revocations BIGINT NOT NULL, -- only ever grows
    PRIMARY KEY (uid, device)
);
