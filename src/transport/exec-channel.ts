import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { FerryError } from '../base/index.ts';
import type { Address } from './channel.ts';
import { refused, type TransportError } from './errors.ts';
import { adoptSocket } from './handle.ts';
import { type Companion, SocketChannel } from './socket-channel.ts';
import { SocketRing } from './socket-ring.ts';

/**
 * Starts the command in a process group of its own, with its stdin and stdout as the channel's two directions (as QEMU does on
 * either side; the return path runs the other way). stderr is ours. `end` waits for its exit; any status but 0 is an error;
 * `destroy` kills the group.
 */
export async function openExec(address: Address & { kind: 'exec' }, label: string): Promise<SocketChannel> {
  const [file, ...args] = address.command;
  const child = spawn(file ?? '', args, { stdio: ['pipe', 'pipe', 'inherit'], detached: true });
  // Before anything is awaited: the pipes must not deliver to the sockets that spawn made.
  const ring = new SocketRing();
  const pipes =
    child.pid === undefined
      ? undefined
      : {
          output: adoptSocket(child.stdin as Socket, { allowHalfOpen: true, readable: false, writable: true }),
          input: adoptSocket(child.stdout as Socket, { ...ring.socketOptions, readable: true, writable: false }),
        };
  if (pipes === undefined) {
    const [error] = await once(child, 'error');
    throw refused(label, error, 'cannot start the command');
  }
  return new SocketChannel(label, { ...pipes, ring, companion: companionOf(child, label) });
}

function companionOf(child: ChildProcess, channel: string): Companion {
  const finished = new Promise<void>((resolve, reject) => {
    child.once('exit', (status, signal) => {
      if (status === 0) resolve();
      else reject(execFailure(channel, status, signal));
    });
  });
  return {
    finished,
    kill: (pipesOpen) => {
      const exited = child.exitCode !== null || child.signalCode !== null;
      if (child.pid === undefined || (exited && !pipesOpen)) return;
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch {
        // The group is gone already.
      }
    },
  };
}

function execFailure(channel: string, status: number | null, signal: NodeJS.Signals | null): TransportError {
  const how = status === null ? `was ended by ${signal}` : `exited with status ${status}`;
  return new FerryError(
    {
      code: 'TRANSPORT_EXEC',
      channel,
      status: status ?? undefined,
      signal: signal ?? undefined,
    },
    `${channel}: the command ${how}`,
  );
}
