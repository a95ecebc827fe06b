---------------------------- MODULE MCMultiPaxos ----------------------------
(* Three named replicas and two commands, so that TLC can count. *)
EXTENDS MultiPaxos, TLC

CONSTANTS r1, r2, r3

CommandsAreAlike == Permutations(Command)

RankOfThree == (r1 :> 1) @@ (r2 :> 2) @@ (r3 :> 3)
=============================================================================
