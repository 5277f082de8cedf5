import type { Host } from '../migration/index.ts';
import type { ObjectNode, ObjectSchema, Schema, SchemaNode } from './schema.ts';

/** What a command may use. */
export interface CommandContext {
  readonly host: Host;
  /** All commands of this server. */
  readonly commands: CommandTable;
  /** Resolves when the server is closing: a command that outlives its server must not hold its session. */
  readonly closing: Promise<void>;
}

/** A command as the server sees it: declared once, for checks, query-qmp-schema and docs alike. */
export interface Command {
  readonly name: string;
  /** One sentence or more, for docs. */
  readonly doc: string;
  readonly arguments: ObjectNode;
  readonly returns: SchemaNode;
  /** `args` has passed the check against `arguments`. What it throws becomes the error reply. */
  readonly run: (context: CommandContext, args: unknown) => unknown;
}

export type CommandTable = ReadonlyMap<string, Command>;

/** A command whose handler is typed by its declaration. */
export function defineCommand<A, R>(declaration: {
  readonly name: string;
  readonly doc: string;
  readonly arguments: ObjectSchema<A>;
  readonly returns: Schema<R>;
  readonly run: (context: CommandContext, args: A) => R | Promise<R>;
}): Command {
  return declaration as unknown as Command;
}

/** Throws Error on a name that is there twice: a mistake of ours. */
export function commandTable(commands: readonly Command[]): CommandTable {
  const table = new Map(commands.map((command) => [command.name, command]));
  if (table.size !== commands.length) throw new Error('vmferry bug: a QMP command is declared twice');
  return table;
}
