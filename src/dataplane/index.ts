/**
 * dataplane: work done once per page, in threads of its own. A channel is a socket with a thread that owns it: sending threads take batches of
 * page numbers and put the pages on the wire straight from guest memory, receiving threads put them straight into it; both know SYNC,
 * the point where channels wait for one another, and nothing else of a migration.
 *
 * Sending: announceChannel as soon as each is connected, SendChannels.start, then `add` page by page (`room` when it says no), `sync` between rounds, `end`.
 * Receiving: ReceiveChannels.start, `meet` at each point of the main stream, `finish`, `close`.
 *
 * Either way prepareThreads beforehand: a thread takes a while to load its code.
 *
 * Between memory and a mapped-ram file: CopyChannels, used like SendChannels, with no peer at all.
 *
 * State of devices goes beside the pages: SendChannels.takeBuffer and sendState; ReceiveChannels.lanes, each with the buffers of one device in order,
 * for a consumer or for the receiving threads themselves.
 *
 * It has no policy: what is sent, when rounds end and which discipline is used is decided by migration.
 */
export type { ChannelInfo, ChannelTotals } from './channel-group.ts';
export * from './copy-channels.ts';
export type { OpenStateLoader, StateLoader, StateLoaderModule } from './device-state/loader.ts';
export type { StateBuffer, StateLane } from './device-state/state-lane.ts';
export type { ChannelError, ChannelFault, ChannelPlace, DataplaneFault } from './errors.ts';
export type { PageCompression } from './messages.ts';
export type { PageChannels } from './page-channels.ts';
export { prepareThreads, THREAD_KINDS, type ThreadKind } from './ready-thread.ts';
export * from './receive-channels.ts';
export * from './send-channels.ts';
