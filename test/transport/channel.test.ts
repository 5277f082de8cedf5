import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { canVector } from '../../src/native/index.ts';
import { type Address, type Channel, connect, listen, parseAddress } from '../../src/transport/index.ts';
import { type ChannelLink, channelContract } from '../contract/channel.ts';
import { cutProxy } from '../support/cut-proxy.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { TlsFolders, type TlsPair } from '../support/tls-folders.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmferry-channel-'));
after(() => rmSync(folder, { recursive: true }));

const folders = new TlsFolders();
after(() => folders.close());

let names = 0;
const freshPath = (what: string) => join(folder, `${what}-${names++}`);
const fifo = () => {
  const path = freshPath('fifo');
  execFileSync('mkfifo', [path]);
  return path;
};

async function socketLink(address: Address & { kind: 'tcp' | 'unix' }, tls?: TlsPair): Promise<ChannelLink> {
  const listener = await listen(address, { tls: tls?.server });
  const bound = listener.address as typeof address;
  const [sender, channel] = await Promise.all([connect(bound, { tls: tls?.client }), listener.accept()]);
  return {
    sender,
    receiver: async () => channel,
    close: async () => {
      channel.destroy();
      await channel.closed;
      listener.close();
    },
  };
}

/** Through a proxy that can reset both ends. */
async function proxiedLink(tls?: TlsPair): Promise<ChannelLink> {
  const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 }, { tls: tls?.server });
  const proxy = await cutProxy(listener.address as Address & { kind: 'tcp' });
  const [sender, channel] = await Promise.all([connect(proxy.address, { tls: tls?.client }), listener.accept()]);
  return {
    sender,
    receiver: async () => channel,
    breakLink: () => proxy.sever('reset'),
    close: async () => {
      channel.destroy();
      await channel.closed;
      listener.close();
      await proxy.close();
    },
  };
}

for (const host of ['127.0.0.1', '::1'])
  channelContract(`tcp ${host}`, { duplex: true, live: true }, () => socketLink({ kind: 'tcp', host, port: 0 }));

channelContract('unix', { duplex: true, live: true }, () => socketLink({ kind: 'unix', path: freshPath('socket') }));

channelContract('tcp through a proxy', { duplex: true, live: true, bufferedBytesMax: 32 * 1024 * 1024 }, () =>
  proxiedLink(),
);

for (const kind of ['x509', 'psk'] as const) {
  const pair = folders.pair(kind);
  channelContract(`tls ${kind}`, { duplex: true, live: true }, () =>
    socketLink({ kind: 'tcp', host: '127.0.0.1', port: 0 }, pair),
  );
}

channelContract('tls through a proxy', { duplex: true, live: true, bufferedBytesMax: 40 * 1024 * 1024 }, () =>
  proxiedLink(folders.pair('psk')),
);

channelContract('memory', { duplex: true, live: true }, async () => {
  const [sender, channel] = memoryPair();
  return { sender, receiver: async () => channel, close: () => channel.destroy() };
});

channelContract('file', { duplex: false, live: false }, async () => {
  const address: Address = { kind: 'file', path: freshPath('file'), offset: 4096 };
  return { sender: await connect(address), receiver: () => incoming(address) };
});

channelContract('fd of a file', { duplex: false, live: false }, async () => {
  const path = freshPath('file');
  return {
    sender: await connect({ kind: 'fd', fd: openSync(path, 'w') }),
    receiver: () => incoming({ kind: 'fd', fd: openSync(path, 'r') }),
  };
});

channelContract('fd of a pipe', { duplex: false, live: true }, async () => {
  const path = fifo();
  const readEnd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const sender = await connect({ kind: 'fd', fd: openSync(path, 'w') });
  const channel = await incoming({ kind: 'fd', fd: readEnd });
  return { sender, receiver: async () => channel, close: () => channel.destroy() };
});

// Two commands joined by two named pipes, one for each direction.
channelContract('exec', { duplex: true, live: true }, async () => {
  const [there, back] = [fifo(), fifo()];
  const sender = await connect(parseAddress(`exec:cat ${back} & exec cat > ${there}`));
  const channel = await incoming(parseAddress(`exec:cat ${there} & exec cat > ${back}`));
  return {
    sender,
    receiver: async () => channel,
    close: async () => {
      channel.destroy();
      await channel.closed;
    },
  };
});

async function incoming(address: Address): Promise<Channel> {
  return (await listen(address)).accept();
}

for (const [name, tls] of [
  ['tcp', undefined],
  ['tls', folders.pair('psk')],
] as const) {
  test(`${name}: what the kernel holds for a peer that does not read is told`, { skip: !canVector() }, async () => {
    const link = await socketLink({ kind: 'tcp', host: '127.0.0.1', port: 0 }, tls);
    const { sender } = link;
    try {
      const reader = await link.receiver();
      // The last of a handshake may not be there yet.
      while (sender.inKernel?.() !== 0) await turn();
      const byteCount = 32 * 1024 * 1024;
      const written = sender.write(Buffer.alloc(byteCount));
      while (sender.inKernel?.() === 0) await turn();
      for (let left = byteCount; left > 0; ) {
        const chunk = await reader.read();
        assert(chunk !== null);
        left -= chunk.end - chunk.start;
      }
      await written;
      while (sender.inKernel?.() !== 0) await turn();
      sender.destroy();
      await sender.closed;
      assert.equal(sender.inKernel?.(), 0, 'of a closed one nothing is told');
    } finally {
      sender.destroy();
      await sender.closed;
      await link.close?.();
    }
  });
}
