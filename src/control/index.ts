/**
 * control: the QMP server of every vmferry process. A socket's bytes -> framing -> session -> command -> Host, and the host's
 * events back to every session. Commands, their types and their docs are declared once, in commands/; a process may add its
 * own with `defineCommand`. Knows no argv and no socket of a migration.
 */
export { type Command, type CommandContext, commandTable, defineCommand } from './command.ts';
export { COMMANDS } from './commands/index.ts';
export * from './errors.ts';
export { renderQmpCommands, renderQmpReference } from './reference.ts';
export * from './schema.ts';
export { type QmpAddress, QmpServer, type QmpServerOptions } from './server.ts';
export { PACKAGE_VERSION, QEMU_VERSION } from './version.ts';
