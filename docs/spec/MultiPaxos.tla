----------------------------- MODULE MultiPaxos -----------------------------
(***************************************************************************)
(* The rules of docs/protocol.md about safety, as a specification: what    *)
(* acceptors promise and accept, what is durable when, pages of promises,  *)
(* what a new leader proposes, watermarks, fetched values, and crashes.    *)
(* Time, elections and membership changes stay out: who campaigns, and     *)
(* when, is any choice.                                                    *)
(*                                                                         *)
(* The network is the set of all messages ever sent.  A message may be     *)
(* taken any number of times, at any time, or never.                       *)
(*                                                                         *)
(* A replica writes to its disk in order.  "dur" is what survives a crash, *)
(* "mem" what the replica acts on; Flush makes memory durable.  A message  *)
(* that says "I will remember" is sent by a step of its own, once the disk *)
(* covers it (D1, D2, D3).                                                 *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets

CONSTANTS
    Replica,        \* the voters
    Command,        \* what clients ask for
    NoValue,        \* a slot without a vote
    Noop,           \* what fills a hole
    Slots,          \* slots are 1 .. Slots
    Rounds,         \* ballots have rounds 1 .. Rounds
    Crashes,        \* how many crashes there are at most
    PageSize,       \* how many slots one page of a promise covers
    Rank,           \* orders the replicas: who wins between equal rounds
    Candidates      \* the replicas that may campaign

Slot == 1 .. Slots
Value == Command \cup {Noop}
Quorum == {Q \in SUBSET Replica : 2 * Cardinality(Q) > Cardinality(Replica)}
PrepareQuorum == Quorum
AcceptQuorum == Quorum

(* Q1 *)
ASSUME \A P \in PrepareQuorum, A \in AcceptQuorum : P \cap A # {}

(***************************************************************************)
(* A ballot is (round, leader), compared in this order, here as a number.  *)
(***************************************************************************)
Width == Cardinality(Replica)
Ballot == 1 .. Rounds * Width
BallotOf(round, r) == (round - 1) * Width + Rank[r]
Leader(b) == CHOOSE r \in Replica : \E round \in 1 .. Rounds : BallotOf(round, r) = b

Max(S) == CHOOSE x \in S : \A y \in S : y <= x

NoVote == [ballot |-> 0, value |-> NoValue]

VARIABLES
    mem,        \* mem[r]: promised, votes, and the chosen values that r knows
    dur,        \* dur[r]: the same, as it is on the disk of r
    lead,       \* lead[r]: what r does about leading
    msgs,       \* every message ever sent
    ever,       \* every vote that was ever durable: [replica, slot, ballot, value]
    crashes     \* crashes so far

vars == <<mem, dur, lead, msgs, ever, crashes>>

Blank == [promised |-> 0,
          vote     |-> [s \in Slot |-> NoVote],
          chosen   |-> [s \in Slot |-> NoValue]]

Idle == [ballot |-> 0, leads |-> FALSE, from |-> 0,
         pages |-> {}, adopt |-> [s \in Slot |-> NoValue], first |-> 0]

Init ==
    /\ mem = [r \in Replica |-> Blank]
    /\ dur = [r \in Replica |-> Blank]
    /\ lead = [r \in Replica |-> Idle]
    /\ msgs = {}
    /\ ever = {}
    /\ crashes = 0

(* The committed prefix: contiguous by definition (L2). *)
Committed(m) ==
    Max({0} \cup {s \in Slot : \A t \in 1 .. s : m.chosen[t] # NoValue})

Send(m) == msgs' = msgs \cup {m}

(***************************************************************************)
(* The disk.                                                               *)
(***************************************************************************)
Flush(r) ==
    /\ dur[r] # mem[r]
    /\ dur' = [dur EXCEPT ![r] = mem[r]]
    /\ ever' = ever \cup {[replica |-> r, slot |-> s,
                           ballot |-> mem[r].vote[s].ballot,
                           value |-> mem[r].vote[s].value] :
                          s \in {t \in Slot : mem[r].vote[t] # NoVote}}
    /\ UNCHANGED <<mem, lead, msgs, crashes>>

Crash(r) ==
    /\ crashes < Crashes
    /\ crashes' = crashes + 1
    /\ mem' = [mem EXCEPT ![r] = dur[r]]
    /\ lead' = [lead EXCEPT ![r] = Idle]
    /\ UNCHANGED <<dur, msgs, ever>>

(***************************************************************************)
(* Campaign (section 8).  The ballot is above every ballot promised, and   *)
(* its own promise is durable before anybody hears of it (D3).             *)
(***************************************************************************)
Campaign(r) ==
    \E round \in 1 .. Rounds :
        LET b == BallotOf(round, r) IN
        /\ b > mem[r].promised
        /\ mem' = [mem EXCEPT ![r].promised = b]
        /\ lead' = [lead EXCEPT ![r] =
                      [Idle EXCEPT !.ballot = b, !.from = Committed(mem[r]) + 1]]
        /\ UNCHANGED <<dur, msgs, ever, crashes>>

(* The slots that replica a has covered without a gap, from the first asked for. *)
Covered(r, a) ==
    LET mine == {p \in lead[r].pages : p.replica = a}
    IN  Max({lead[r].from - 1} \cup
            {s \in lead[r].from .. Slots : \A t \in lead[r].from .. s :
                \E p \in mine : p.from <= t /\ t <= p.through})

Prepare(r) ==
    /\ lead[r].ballot # 0
    /\ ~lead[r].leads
    /\ dur[r].promised >= lead[r].ballot
    /\ \E a \in Replica \ {r} :
         /\ Covered(r, a) < Slots
         /\ Send([type |-> "Prepare", ballot |-> lead[r].ballot, from |-> Covered(r, a) + 1])
    /\ UNCHANGED <<mem, dur, lead, ever, crashes>>

(***************************************************************************)
(* The acceptor (section 7).  P7: whoever promises a ballot above its own  *)
(* stops leading and campaigning.                                          *)
(***************************************************************************)
Obey(r, b) ==
    IF lead[r].ballot # 0 /\ lead[r].ballot < b
    THEN lead' = [lead EXCEPT ![r] = Idle]
    ELSE UNCHANGED lead

OnPrepare(r) ==
    \E m \in msgs :
        /\ m.type = "Prepare"
        /\ m.ballot > mem[r].promised                              \* A1
        /\ mem' = [mem EXCEPT ![r].promised = m.ballot]
        /\ Obey(r, m.ballot)
        /\ UNCHANGED <<dur, msgs, ever, crashes>>

(* What a promiser says of a slot above its prefix: chosen says more than a vote (A4). *)
Report(m, s) ==
    IF m.chosen[s] # NoValue
    THEN [kind |-> "chosen", ballot |-> 0, value |-> m.chosen[s]]
    ELSE [kind |-> "vote", ballot |-> m.vote[s].ballot, value |-> m.vote[s].value]

Page(a, b, from) ==
    LET through == IF from + PageSize - 1 > Slots THEN Slots ELSE from + PageSize - 1
        prefix  == Committed(dur[a])
    IN  [type |-> "Promise", ballot |-> b, replica |-> a, committed |-> prefix,
         from |-> from, through |-> through,
         entries |-> [s \in {t \in from .. through : t > prefix} |-> Report(dur[a], s)]]

(* One page, of the promise to the highest ballot promised, once it and all it names are durable. *)
Promise(r) ==
    \E m \in msgs :
        /\ m.type = "Prepare"
        /\ m.ballot = mem[r].promised
        /\ Leader(m.ballot) # r
        /\ dur[r] = mem[r]                                         \* D1
        /\ Send(Page(r, m.ballot, m.from))
        /\ UNCHANGED <<mem, dur, lead, ever, crashes>>

OnAccept(r) ==
    \E m \in msgs :
        /\ m.type = "Accept"
        /\ m.ballot >= mem[r].promised                             \* A2
        /\ m.slot > Committed(mem[r])                              \* A5
        /\ mem[r].vote[m.slot].ballot < m.ballot                   \* A3
        /\ mem' = [mem EXCEPT ![r].promised = m.ballot,
                              ![r].vote[m.slot] = [ballot |-> m.ballot, value |-> m.value]]
        /\ Obey(r, m.ballot)
        /\ UNCHANGED <<dur, msgs, ever, crashes>>

Accepted(r) ==
    \E s \in Slot :
        /\ dur[r].vote[s] # NoVote                                 \* D2, D4
        /\ Send([type |-> "Accepted", replica |-> r, slot |-> s, ballot |-> dur[r].vote[s].ballot])
        /\ UNCHANGED <<mem, dur, lead, ever, crashes>>

(***************************************************************************)
(* The proposer (section 8).                                               *)
(***************************************************************************)
TakePage(r, page) ==
    /\ lead[r].ballot # 0
    /\ ~lead[r].leads
    /\ page.ballot = lead[r].ballot
    /\ page \notin lead[r].pages
    /\ page.from <= Covered(r, page.replica) + 1                   \* P1: in order
    /\ page.through > Covered(r, page.replica)
    /\ lead' = [lead EXCEPT ![r].pages = @ \cup {page}]
    /\ UNCHANGED <<mem, dur, msgs, ever, crashes>>

OnPromise(r) == \E m \in msgs : m.type = "Promise" /\ TakePage(r, m)

(* The candidate's own promise counts when it is durable (D4), all of it in one page. *)
OwnPromise(r) ==
    LET b == lead[r].ballot
        first == lead[r].from
        prefix == Committed(mem[r])
    IN  /\ b # 0
        /\ dur[r] = mem[r]
        /\ mem[r].promised = b
        /\ first <= Slots
        /\ \A p \in lead[r].pages : p.replica # r
        /\ TakePage(r, [type |-> "Promise", ballot |-> b, replica |-> r, committed |-> prefix,
                        from |-> first, through |-> Slots,
                        entries |-> [s \in {t \in first .. Slots : t > prefix} |->
                                        Report(mem[r], s)]])

(* All that the pages say of a slot. *)
Reports(r, s) == {p.entries[s] : p \in {q \in lead[r].pages : s \in DOMAIN q.entries}}

Best(r, s) ==
    LET said == Reports(r, s)
        chosen == {e \in said : e.kind = "chosen"}
        votes == {e \in said : e.kind = "vote" /\ e.ballot > 0}
    IN  IF chosen # {} THEN (CHOOSE e \in chosen : TRUE).value
        ELSE IF votes # {} THEN (CHOOSE e \in votes : \A f \in votes : f.ballot <= e.ballot).value
        ELSE NoValue

Win(r) ==
    LET complete == {a \in Replica : Covered(r, a) = Slots}        \* P1, Q2
        reported == Max({lead[r].from - 1} \cup {p.committed : p \in lead[r].pages})
        named == {s \in Slot : s > reported /\ Best(r, s) # NoValue}
        last == Max({reported} \cup named)
    IN  /\ lead[r].ballot # 0
        /\ ~lead[r].leads
        /\ complete \in PrepareQuorum
        /\ lead' = [lead EXCEPT ![r].leads = TRUE,
                                ![r].pages = {},
                                ![r].adopt = [s \in Slot |->       \* P2, P3
                                    IF s <= reported \/ s > last THEN NoValue
                                    ELSE IF Best(r, s) # NoValue THEN Best(r, s) ELSE Noop],
                                ![r].first = last + 1]             \* P4
        /\ UNCHANGED <<mem, dur, msgs, ever, crashes>>

(* A value in a slot, once under a ballot (P6): its own vote in memory is the memory of it. *)
ProposeIn(r, s, v) ==
    /\ mem[r].promised = lead[r].ballot
    /\ mem[r].vote[s].ballot < lead[r].ballot
    /\ s > Committed(mem[r])
    /\ mem' = [mem EXCEPT ![r].vote[s] = [ballot |-> lead[r].ballot, value |-> v]]
    /\ Send([type |-> "Accept", ballot |-> lead[r].ballot, slot |-> s, value |-> v])
    /\ UNCHANGED <<dur, ever, crashes>>

Adopt(r) ==
    /\ lead[r].leads
    /\ \E s \in Slot :
         /\ lead[r].adopt[s] # NoValue
         /\ mem[r].chosen[s] = NoValue
         /\ ProposeIn(r, s, lead[r].adopt[s])
         /\ lead' = [lead EXCEPT ![r].adopt[s] = NoValue]

Propose(r) ==
    /\ lead[r].leads
    /\ lead[r].first <= Slots
    /\ \A s \in Slot : lead[r].adopt[s] = NoValue
    /\ \E v \in Command :
         /\ \A m \in msgs : m.type = "Accept" => m.value # v       \* V2: in one slot only
         /\ ProposeIn(r, lead[r].first, v)
    /\ lead' = [lead EXCEPT ![r].first = @ + 1]

(***************************************************************************)
(* The learner (section 9).                                                *)
(***************************************************************************)
(* L1: the exact slot and ballot, each voter once.  A leader's own Accepted goes through its disk. *)
Learn(r) ==
    \E s \in Slot :
        LET b == lead[r].ballot
            voters == {m.replica : m \in {n \in msgs :
                           n.type = "Accepted" /\ n.slot = s /\ n.ballot = b}}
        IN  /\ lead[r].leads
            /\ mem[r].chosen[s] = NoValue
            /\ mem[r].vote[s].ballot = b
            /\ voters \in AcceptQuorum
            /\ mem' = [mem EXCEPT ![r].chosen[s] = mem[r].vote[s].value]
            /\ UNCHANGED <<dur, lead, msgs, ever, crashes>>

Commit(r) ==
    /\ lead[r].leads
    /\ Committed(mem[r]) > 0
    /\ Send([type |-> "Commit", ballot |-> lead[r].ballot, committed |-> Committed(mem[r])])
    /\ UNCHANGED <<mem, dur, lead, ever, crashes>>

(* L3: only what was accepted at exactly the watermark's ballot, and in order. *)
OnCommit(r) ==
    \E m \in msgs :
        LET s == Committed(mem[r]) + 1 IN
        /\ m.type = "Commit"
        /\ s <= m.committed
        /\ mem[r].vote[s].ballot = m.ballot
        /\ mem' = [mem EXCEPT ![r].chosen[s] = mem[r].vote[s].value]
        /\ UNCHANGED <<dur, lead, msgs, ever, crashes>>

Serve(r) ==
    \E s \in 1 .. Committed(mem[r]) :
        /\ Send([type |-> "Fetched", slot |-> s, value |-> mem[r].chosen[s]])
        /\ UNCHANGED <<mem, dur, lead, ever, crashes>>

(* L4.  P8: a leader that proposed another value there stops; so does one that was overtaken. *)
OnFetched(r) ==
    \E m \in msgs :
        /\ m.type = "Fetched"
        /\ m.slot = Committed(mem[r]) + 1
        /\ mem' = [mem EXCEPT ![r].chosen[m.slot] = m.value]
        /\ LET other == /\ mem[r].vote[m.slot].ballot = lead[r].ballot
                        /\ mem[r].vote[m.slot].value # m.value
               overtaken == lead[r].first <= m.slot
           IN  IF lead[r].leads /\ (other \/ overtaken)
               THEN lead' = [lead EXCEPT ![r] = Idle]
               ELSE UNCHANGED lead
        /\ UNCHANGED <<dur, msgs, ever, crashes>>

Next ==
    \/ \E r \in Candidates : Campaign(r)
    \/ \E r \in Replica :
        \/ Flush(r) \/ Crash(r)
        \/ Prepare(r) \/ OnPrepare(r) \/ Promise(r) \/ OnPromise(r) \/ OwnPromise(r)
        \/ Win(r) \/ Adopt(r) \/ Propose(r) \/ OnAccept(r) \/ Accepted(r)
        \/ Learn(r) \/ Commit(r) \/ OnCommit(r) \/ Serve(r) \/ OnFetched(r)

Spec == Init /\ [][Next]_vars

(***************************************************************************)
(* What holds always (section 12).                                         *)
(***************************************************************************)
ChosenAt(s, b, v) ==
    {e.replica : e \in {x \in ever : x.slot = s /\ x.ballot = b /\ x.value = v}} \in AcceptQuorum

Chosen(s) == {v \in Value : \E b \in Ballot : ChosenAt(s, b, v)}

Agreement == \A s \in Slot : Cardinality(Chosen(s)) <= 1

Validity == \A s \in Slot : Chosen(s) \subseteq Value

OneValuePerBallotAndSlot ==
    \A m, n \in {x \in msgs : x.type = "Accept"} :
        m.ballot = n.ballot /\ m.slot = n.slot => m.value = n.value

VotesRespectPromises ==
    \A r \in Replica, s \in Slot :
        /\ mem[r].vote[s].ballot <= mem[r].promised
        /\ dur[r].vote[s].ballot <= dur[r].promised

DurableBeforeSent ==
    \A m \in msgs :
        /\ m.type = "Prepare" => dur[Leader(m.ballot)].promised >= m.ballot
        /\ m.type = "Promise" => dur[m.replica].promised >= m.ballot
        /\ m.type = "Accepted" =>
             \E e \in ever : e.replica = m.replica /\ e.slot = m.slot /\ e.ballot = m.ballot

CommittedIsChosen ==
    \A r \in Replica, s \in Slot :
        mem[r].chosen[s] # NoValue => mem[r].chosen[s] \in Chosen(s)

PromisesNeverGoBack ==
    [][\A r \in Replica : dur'[r].promised >= dur[r].promised]_vars

(***************************************************************************)
(* What must be reachable: check it as an invariant and see it fail.       *)
(***************************************************************************)
NothingIsChosen == \A s \in Slot : Chosen(s) = {}
NoHoleIsFilled == \A m \in msgs : m.type = "Accept" => m.value # Noop
NothingIsAdopted ==
    \A m, n \in {x \in msgs : x.type = "Accept"} : m.value = n.value => m.ballot = n.ballot
=============================================================================
