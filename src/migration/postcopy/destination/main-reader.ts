import { unreachable } from '../../../base/index.ts';
import { type Command, type RamCounts, RESUME_ACK_VALUE } from '../../../wire/index.ts';
import type { IncomingStream } from '../../destination/incoming-stream.ts';
import { MigrationError, unsupported } from '../../errors.ts';
import type { LatePages } from './late-pages.ts';
import type { SourceConnection } from './source-connection.ts';

export interface MainReaderParts {
  readonly stream: IncomingStream;
  readonly pages: LatePages;
  readonly count: (pages: Readonly<RamCounts>) => void;
  /** The machine gets time for what it was given. */
  readonly drain: () => Promise<void>;
  /** POSTCOPY_RESUME has come: the source goes on over this connection. */
  readonly resumed: () => void;
}

/**
 * Reads the main channel of a connection behind the package, to EOF: pages, and when it is not the first connection what the source asks before it
 * goes on. Throws WireError, TransportError, MIGRATION_UNSUPPORTED, MIGRATION_PEER_GONE, and as `drain`.
 */
export async function readMain(connection: SourceConnection, parts: MainReaderParts): Promise<void> {
  const { stream, count, drain } = parts;
  const told = new Set<number>();
  for (let event = await stream.next(); event !== undefined; event = await stream.next()) {
    switch (event.kind) {
      case 'command':
        takeCommand(event.command, connection, parts, told);
        break;
      case 'ram-batch':
        count(event.pages);
        await drain();
        break;
      case 'section-end':
        if (event.ramPages !== undefined) count(event.ramPages);
        break;
      case 'ram-eos':
      case 'section-begin':
        break;
      case 'eof':
        return;
      default:
        throw unsupported(`${event.kind} behind the package`);
    }
  }
  throw new MigrationError({ code: 'MIGRATION_PEER_GONE', phase: 'postcopy' }, 'the stream ended before EOF');
}

/** `told`: blocks of which the source knows on this connection what is here. */
function takeCommand(
  command: Command,
  connection: SourceConnection,
  { pages, resumed }: MainReaderParts,
  told: Set<number>,
): void {
  const { received, requests } = pages;
  switch (command.name) {
    case 'PING':
      connection.say({ type: 'PONG', value: command.value });
      return;
    case 'RECV_BITMAP': {
      const block = received.indexOf(command.block);
      if (block === undefined) throw unsupported(`RECV_BITMAP of block '${command.block}', which there is not,`);
      // Asked again and again, answers would pile up here if nobody read them.
      if (told.has(block)) throw unsupported(`RECV_BITMAP of block '${command.block}' for a second time`);
      told.add(block);
      connection.say({ type: 'RECV_BITMAP', block: command.block, bitmap: received.toWire(block) });
      return;
    }
    case 'POSTCOPY_RESUME':
      resumed();
      connection.say({ type: 'RESUME_ACK', value: RESUME_ACK_VALUE });
      requests.open();
      return;
    case 'OPEN_RETURN_PATH':
    case 'POSTCOPY_ADVISE':
    case 'POSTCOPY_LISTEN':
    case 'POSTCOPY_RUN':
    case 'POSTCOPY_RAM_DISCARD':
    case 'PACKAGED':
    case 'ENABLE_COLO':
    case 'SWITCHOVER_START':
      throw unsupported(`${command.name} behind the package`);
    default:
      unreachable(command);
  }
}
