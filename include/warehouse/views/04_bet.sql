-- All are written into the views that ask them, so that none is called once a row.
CREATE FUNCTION core.is_bet(source text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN source IN ('odds88', 'tote');

COMMENT ON FUNCTION core.is_bet(text) IS
    'Whether what this source settles are bets, and not offers or positions.';

-- A quotient of numerics is cut somewhere; whole parts and remainders are exact.
CREATE FUNCTION core.nearest(dividend numeric, divisor numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN div(dividend, divisor) + CASE sign(2 * abs(mod(dividend, divisor)) - divisor)
    WHEN 1 THEN sign(dividend)
    WHEN 0 THEN mod(div(dividend, divisor), 2)
    ELSE 0
END;

COMMENT ON FUNCTION core.nearest(numeric, numeric) IS
    'The whole number nearest to a quotient, of two equally near the even one; the divisor is above zero.';

CREATE FUNCTION core.converted(amount numeric, rate numeric, direction text)
RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN direction IS NULL THEN NULL
    WHEN amount = 0 THEN 0
    WHEN rate > 0 THEN 0.00000001 * core.nearest(
        100000000 * amount * CASE direction WHEN 'base_per_unit' THEN rate ELSE 1 END,
        CASE direction WHEN 'units_per_base' THEN rate ELSE 1 END
    )
END;

COMMENT ON FUNCTION core.converted(numeric, numeric, text) IS
    'An amount by an exchange rate that is used in this direction (ops.rate_terms), rounded to 8 digits behind the point, half to even; NULL without amount, direction or a rate above zero, and 0 for 0.';
