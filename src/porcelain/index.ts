/**
 * porcelain: whole jobs for people and programs - save, restore, migrate, receive, send. Each is one call that drives the processes
 * at both ends and answers with an `Outcome`: how it ended and where the guest is, as asked and not as assumed. Knows no argv and no terminal.
 */
export { type CheckOptions, type CheckResult, checkEnds } from './check.ts';
export { CheckpointHost, type ServeHost } from './checkpoint-host.ts';
export * from './errors.ts';
export { type MigrateOptions, migrate } from './migrate.ts';
export * from './outcome.ts';
export { type ReceiveOptions, receive } from './receive.ts';
export { type RestoreOptions, restore } from './restore.ts';
export { type SaveOptions, save } from './save.ts';
export { type SendOptions, send } from './send.ts';
export { type OwnTls, ownTls, type TlsChoice } from './tls.ts';
