/**
 * porcelain: whole jobs for people and programs - save, restore, migrate, receive, send. Each is one call that drives the processes
 * at both ends and answers with an `Outcome`: how it ended and where the guest is, as asked and not as assumed. Knows no argv and no terminal.
 */
export * from './errors.ts';
export { type MigrateOptions, migrate } from './migrate.ts';
export * from './outcome.ts';
