/** Stands between a client and a server and spoils one of the server's messages. Bytes of the client pass as they are. */
import { createServer, type Server, type Socket } from 'node:net';
import { vfioUser } from '../../../src/wire/index.ts';
import { RawEnd } from './support.ts';

/** What becomes of the message; `bytes` is all of it. Undefined: nothing is said any more. */
export type Twist = (bytes: Buffer) => { readonly bytes: Buffer; readonly after: 'go on' | 'close' | 'silence' };

export interface TwistingRelay {
  /** Messages of the server that have passed. */
  readonly passed: () => number;
  close(): Promise<void>;
}

/** Spoils the message of this number, counted from 0, or the first answer to this command; undefined: none. */
export async function twistingRelay(
  path: string,
  target: string,
  which: number | vfioUser.CommandName | undefined,
  twist: Twist,
): Promise<TwistingRelay> {
  const sockets = new Set<Socket>();
  let passed = 0;
  let twisted = false;
  const isDue = (message: vfioUser.Message, number: number) =>
    typeof which === 'string' ? message.command === vfioUser.COMMANDS[which].number : number === which;
  const relay: Server = createServer(async (client) => {
    const server = await RawEnd.connect(target);
    for (const socket of [client, server.socket]) {
      sockets.add(socket);
      socket.on('error', () => {});
    }
    client.on('data', (bytes: Buffer) => server.send(bytes));
    client.on('close', () => server.close());
    for (let message = await server.next(); message !== undefined; message = await server.next()) {
      const due = !twisted && isDue(message, passed++);
      twisted ||= due;
      const { bytes, after } = due ? twist(wholeOf(message)) : { bytes: wholeOf(message), after: 'go on' };
      if (!client.destroyed) client.write(bytes);
      if (after === 'silence') return;
      if (after === 'close') break;
    }
    client.end();
  });
  await new Promise<void>((resolve) => relay.listen(path, resolve));
  return {
    passed: () => passed,
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => relay.close(() => resolve()));
    },
  };
}

function wholeOf({ payload, id, command, type, noReply, error }: vfioUser.Message): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt16LE(id, 0);
  header.writeUInt16LE(command, 2);
  header.writeUInt32LE(16 + payload.bytes.length, 4);
  header.writeUInt32LE((type === 'reply' ? 1 : 0) | (noReply ? 0x10 : 0) | (error === undefined ? 0 : 0x20), 8);
  header.writeUInt32LE(error ?? 0, 12);
  return Buffer.concat([header, payload.bytes]);
}
