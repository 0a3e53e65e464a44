-- Stands in for a migration of another branch; it goes when the branches meet.
SELECT 1;
