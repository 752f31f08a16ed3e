-- The data model. Every constraint is named: the names are the contract between SQL and the errors
-- that clients see (docs/errors.md).

-- +goose Up
SET LOCAL lock_timeout = '5s';

-- +goose StatementBegin
CREATE FUNCTION accounts.is_canonical_name_v1(
    p_name text,
    p_folded boolean
)
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE PARALLEL SAFE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN p_name IS NFC NORMALIZED
        AND p_name COLLATE "C" !~ (
            '^ | $|  |['
            '\u0001-\u001f\u007f-\u009f' -- control characters
            '\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u2800\u3000' -- white space
            -- Displayed as nothing: Default_Ignorable_Code_Point, interlinear annotations.
            '\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e'
            '\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb'
            '\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff'
            '\ue000-\uf8ff\U000f0000-\U0010ffff' -- private use
            '\ufdd0-\ufdef\ufffd-\uffff' -- noncharacters, and what stands for broken text
            ']')
        -- Cherokee folds to capitals.
        AND (NOT p_folded
             OR p_name COLLATE "C" ~ '[\u13a0-\u13ff\uab70-\uabbf]'
             OR p_name = lower(p_name COLLATE "default"));
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.is_canonical_name_v1(text, boolean) IS
    'Internal: whether a text has the canonical form of a name as far as SQL knows it: NFC, no '
    'control or invisible character, no white space but single spaces between words; with p_folded '
    'no capital letter. internal/identifier makes names and their keys.';

CREATE TABLE accounts.users (
    id uuid NOT NULL DEFAULT accounts.generate_uuid_v1(),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    is_active boolean NOT NULL DEFAULT true,
    profile jsonb NOT NULL DEFAULT '{}',
    version bigint NOT NULL DEFAULT 1,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_profile_is_object CHECK (jsonb_typeof(profile) = 'object'),
    CONSTRAINT users_profile_size CHECK (octet_length(profile::text) <= 16384),
    -- Depth counts containers: {} is 1. So no container may stand 32 levels below the root.
    CONSTRAINT users_profile_depth CHECK (
        NOT jsonb_path_exists(
            profile, 'strict $.**{32} ? (@.type() == "object" || @.type() == "array")')),
    CONSTRAINT users_version_positive CHECK (version > 0)
) WITH (fillfactor = 90); -- room on the page for HOT updates: every change rewrites the row
COMMENT ON TABLE accounts.users IS
    'A user account. version and updated_at rise with every change of the row, of one of its '
    'contacts or of one of its memberships; writers lock the row FOR NO KEY UPDATE first.';

CREATE TABLE accounts.contact_types (
    id uuid NOT NULL DEFAULT accounts.generate_uuid_v1(),
    name text COLLATE "C" NOT NULL,
    on_second text COLLATE "C" NOT NULL,
    single boolean NOT NULL GENERATED ALWAYS AS (on_second <> 'allow') STORED,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT contact_types_pkey PRIMARY KEY (id),
    CONSTRAINT contact_types_name_key UNIQUE (name),
    CONSTRAINT contact_types_id_single_key UNIQUE (id, single),
    CONSTRAINT contact_types_name_form CHECK (name ~ '^[a-z][a-z0-9_]{0,62}$'),
    CONSTRAINT contact_types_on_second_known CHECK (on_second IN ('replace', 'reject', 'allow')),
    -- The three identifier types are known to the service by name: it canonicalises their values.
    CONSTRAINT contact_types_identifier_name_fixed CHECK (
        CASE id
            WHEN '00000000-0000-7000-8000-000000000001' THEN name = 'phone'
            WHEN '00000000-0000-7000-8000-000000000002' THEN name = 'email'
            WHEN '00000000-0000-7000-8000-000000000003' THEN name = 'second_login'
            ELSE name NOT IN ('phone', 'email', 'second_login', 'uuid')
        END)
);
COMMENT ON TABLE accounts.contact_types IS
    'Dictionary of contact types. on_second says what a second active contact of the type does to '
    'a user: replace (the old one is deactivated in the same call), reject, allow.';

CREATE TABLE accounts.user_contacts (
    id uuid NOT NULL DEFAULT accounts.generate_uuid_v1(),
    user_id uuid NOT NULL,
    contact_type_id uuid NOT NULL,
    value text NOT NULL,
    normalized text COLLATE "C" NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    single boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deactivated_at timestamptz,
    CONSTRAINT user_contacts_pkey PRIMARY KEY (id),
    CONSTRAINT user_contacts_user_id_fkey FOREIGN KEY (user_id) REFERENCES accounts.users (id),
    CONSTRAINT user_contacts_contact_type_fkey FOREIGN KEY (contact_type_id, single)
        REFERENCES accounts.contact_types (id, single) ON UPDATE CASCADE,
    CONSTRAINT user_contacts_deactivated_at_agrees CHECK (is_active = (deactivated_at IS NULL)),
    CONSTRAINT user_contacts_value_length CHECK (char_length(value) BETWEEN 1 AND 255),
    CONSTRAINT user_contacts_normalized_length CHECK (char_length(normalized) BETWEEN 1 AND 255),
    -- The value of a type that is no identifier is a name: without regard to case.
    CONSTRAINT user_contacts_custom_canonical CHECK (
        contact_type_id IN ('00000000-0000-7000-8000-000000000001',
                            '00000000-0000-7000-8000-000000000002',
                            '00000000-0000-7000-8000-000000000003')
        OR accounts.is_canonical_name_v1(normalized, true)),
    -- The canonical form of each identifier type, so that one text names at most one user:
    -- whatever is accepted under one kind is refused under the others.
    CONSTRAINT user_contacts_phone_canonical CHECK (
        contact_type_id <> '00000000-0000-7000-8000-000000000001'
        OR normalized ~ '^\+[1-9][0-9]{6,14}$'),
    CONSTRAINT user_contacts_email_canonical CHECK (
        contact_type_id <> '00000000-0000-7000-8000-000000000002'
        OR (normalized ~ '^[^@[:space:][:cntrl:]A-Z]+@[a-z0-9-]+(\.[a-z0-9-]+)+$'
            AND octet_length(normalized) <= 254)),
    CONSTRAINT user_contacts_second_login_canonical CHECK (
        contact_type_id <> '00000000-0000-7000-8000-000000000003'
        OR (normalized !~ '[@[:space:][:cntrl:]A-Z]'
            AND normalized !~ '^(\+|tel:)'
            AND translate(normalized, ' ().-ー', '') !~ '^\+?[0-9]{7,15}$'
            -- With 00 and a national prefix in brackets a phone may have more digits.
            AND (strpos(normalized, '(') = 0
                 OR translate(normalized, ' ().-ー', '') !~ '^00[0-9]{5,17}$')
            AND translate(normalized, '{}-', '') !~ '^[0-9a-f]{32}$'))
);
COMMENT ON TABLE accounts.user_contacts IS
    'Contacts of users. value is the text as it was given, normalized its canonical form, made by '
    'internal/identifier: of an identifier, or of a name without regard to case. '
    'A deactivated contact stays as history and frees its value.';
CREATE UNIQUE INDEX user_contacts_active_normalized_key
    ON accounts.user_contacts (contact_type_id, normalized) WHERE is_active;
-- Without it two concurrent replacements leave two active logins.
CREATE UNIQUE INDEX user_contacts_single_active_key
    ON accounts.user_contacts (user_id, contact_type_id) WHERE is_active AND single;
CREATE INDEX user_contacts_user_id_idx ON accounts.user_contacts (user_id);
CREATE INDEX user_contacts_contact_type_idx ON accounts.user_contacts (contact_type_id, single);

CREATE TABLE accounts.user_groups (
    id uuid NOT NULL DEFAULT accounts.generate_uuid_v1(),
    name text COLLATE "C" NOT NULL,
    name_key text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT user_groups_pkey PRIMARY KEY (id),
    CONSTRAINT user_groups_name_key UNIQUE (name_key),
    -- No comma: an upload names several groups as "client,driver".
    CONSTRAINT user_groups_name_form CHECK (
        char_length(name) BETWEEN 1 AND 100 AND strpos(name, ',') = 0
        AND accounts.is_canonical_name_v1(name, false)),
    -- Go folds more letters than lower() does. For ASCII and Russian both do the same.
    CONSTRAINT user_groups_name_key_agrees CHECK (
        char_length(name_key) BETWEEN 1 AND 255 AND strpos(name_key, ',') = 0
        AND accounts.is_canonical_name_v1(name_key, true)
        AND (name ~ '[^ -~А-Яа-яЁё]'
             OR name_key = translate(lower(name), 'АБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ',
                                                  'абвгдеёжзийклмнопрстуфхцчшщъыьэюя')))
);
COMMENT ON TABLE accounts.user_groups IS
    'Dictionary of user groups. name is the canonical form in the case in which it was given, '
    'name_key the name without regard to case; internal/identifier makes both.';

CREATE TABLE accounts.user_group_memberships (
    user_id uuid NOT NULL,
    group_id uuid NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT user_group_memberships_pkey PRIMARY KEY (user_id, group_id),
    CONSTRAINT user_group_memberships_user_id_fkey
        FOREIGN KEY (user_id) REFERENCES accounts.users (id),
    CONSTRAINT user_group_memberships_group_id_fkey
        FOREIGN KEY (group_id) REFERENCES accounts.user_groups (id)
);
COMMENT ON TABLE accounts.user_group_memberships IS
    'Who is in which group. A membership that ended stays, with is_active = false.';
CREATE INDEX user_group_memberships_group_id_idx
    ON accounts.user_group_memberships (group_id, user_id);

CREATE TABLE accounts.cache_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY,
    keys text[] NOT NULL,
    deps text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT cache_outbox_pkey PRIMARY KEY (id)
) WITH (
    -- A queue: rows live for milliseconds, so clean up by count, not by share of the table.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000
);
COMMENT ON TABLE accounts.cache_outbox IS
    'Cache invalidations that were committed with their write and are not yet known to be done: '
    'the logical keys and dependencies that the write touched (docs/caching.md).';

CREATE TABLE accounts.named_locks (
    name text COLLATE "C" NOT NULL,
    CONSTRAINT named_locks_pkey PRIMARY KEY (name)
);
COMMENT ON TABLE accounts.named_locks IS
    'One row for each kind of work that one transaction at a time may do. The lock is the lock on '
    'the row (try_named_lock_v1, take_named_lock_v1): only functions of accounts_owner reach it.';

INSERT INTO accounts.named_locks (name)
VALUES ('cache_outbox'), ('contact_types'), ('user_groups');

INSERT INTO accounts.contact_types (id, name, on_second)
VALUES ('00000000-0000-7000-8000-000000000001', 'phone', 'reject'),
       ('00000000-0000-7000-8000-000000000002', 'email', 'reject'),
       ('00000000-0000-7000-8000-000000000003', 'second_login', 'replace');

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP TABLE accounts.named_locks;
DROP TABLE accounts.cache_outbox;
DROP TABLE accounts.user_group_memberships;
DROP TABLE accounts.user_groups;
DROP TABLE accounts.user_contacts;
DROP TABLE accounts.contact_types;
DROP TABLE accounts.users;
DROP FUNCTION accounts.is_canonical_name_v1(text, boolean);
