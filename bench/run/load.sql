-- $1 users with a phone, an email, a login and one or two groups each, as the service would have made
-- them. The functions are for writes of one or two thousand rows; this fills an empty database.
INSERT INTO accounts.user_groups (name, name_key)
SELECT g.name, g.name
  FROM unnest('{client,driver,manager,operator,partner,support}'::text[]) AS g (name)
    ON CONFLICT DO NOTHING;

CREATE TEMPORARY TABLE made AS
SELECT n, accounts.generate_uuid_v1() AS id
  FROM generate_series(1, current_setting('bench.users')::integer) AS n;

INSERT INTO accounts.users (id, profile)
SELECT m.id,
       jsonb_build_object(
           'first_name', (ARRAY['Александр', 'Дмитрий', 'Анна', 'Екатерина'])[1 + m.n % 4],
           'last_name', (ARRAY['Иванов', 'Петров', 'Сидорова'])[1 + m.n % 3],
           'city', (ARRAY['Москва', 'Казань', 'Екатеринбург', 'Пермь', 'Самара'])[1 + m.n % 5],
           'locale', 'ru')
  FROM made AS m
 ORDER BY m.n;

INSERT INTO accounts.user_contacts (user_id, contact_type_id, value, normalized, single)
SELECT m.id, t.id, v.value, v.value, t.single
  FROM made AS m
 CROSS JOIN LATERAL (
           VALUES ('phone', '+7999' || lpad(m.n::text, 7, '0')),
                  ('email', 'user' || m.n || '@example.com'),
                  ('second_login', 'login_' || m.n)) AS v (type, value)
  JOIN accounts.contact_types AS t ON t.name = v.type
 ORDER BY m.n;

INSERT INTO accounts.user_group_memberships (user_id, group_id)
SELECT m.id, g.id
  FROM made AS m
  JOIN accounts.user_groups AS g
    ON g.name = 'client'
    OR g.name = (ARRAY['client', 'driver', 'manager', 'operator', 'partner', 'support'])[1 + m.n % 6]
 ORDER BY m.n;
